"""One epoch, one evaluation, probes, checkpoints, for every task alike; knows no flag."""
