//! Whole statements: against DataFusion, and against what people shall see.

mod errors;
mod nexmark;
mod noise;
mod oracle;
mod parse;
mod world;
