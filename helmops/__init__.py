"""helmops keeps Helm releases as declared, and rolls back only to what was seen healthy."""

__version__ = "0.1.0"
