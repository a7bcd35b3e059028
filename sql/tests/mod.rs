//! Whole statements: against DataFusion, and against what people shall see.

mod aggregates;
mod arrival;
mod edges;
mod errors;
mod functions;
mod joins;
mod left;
mod lifetime;
mod nested;
mod nexmark;
mod noise;
mod oracle;
mod over;
mod own_functions;
mod parse;
mod pattern;
mod scripts;
mod sets;
mod subqueries;
mod upserts;
mod world;
mod zones;
