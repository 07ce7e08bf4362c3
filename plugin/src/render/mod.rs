//! Turns the model into text. Everything here is pure: the width and the time are arguments.

pub mod bar;
pub mod changes;
pub mod check;
pub mod difference;
pub mod document;
pub mod lint;
pub mod load;
pub mod shape;
pub mod text;
pub mod tree;
pub mod why;
