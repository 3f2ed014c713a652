"""What leaves a run: the exported model, its card, and the way to the Hugging Face hub."""
