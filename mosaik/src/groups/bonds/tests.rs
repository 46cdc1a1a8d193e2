//! Bonds on the whole stack.
