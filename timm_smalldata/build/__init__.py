"""Settings become data, model, views, loss, task, optimizer; and the one opener of trained weights."""
