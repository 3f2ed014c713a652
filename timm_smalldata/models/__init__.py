"""Models that timm lacks; importing this package registers them."""
import timm  # noqa: F401  (the registry that they enter)
