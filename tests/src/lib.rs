//! Placeholder opening; replaced by its first real part.
