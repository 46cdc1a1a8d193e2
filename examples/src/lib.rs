//! The examples are the targets beside this file; this library is empty.
