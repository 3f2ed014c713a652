"""The parts of `data.batch_augment`: draws, frames, colours, blurs and erasing for whole batches; for it alone."""
