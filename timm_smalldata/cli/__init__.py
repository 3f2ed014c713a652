"""The verbs of the command `timm-smalldata`, one file each; only the command line comes in here."""
