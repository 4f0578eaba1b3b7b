//! Pages over a real engine with nodes whose every string is hostile.
