"""A command line or a YAML file becomes settled settings; nothing here opens an image or builds a model."""
