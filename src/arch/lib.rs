//! Prefetch, hashing and huge-page slices behind safe interfaces.
