//! Distillation: a student learns a teacher's distributions on its own completions and on
//! demonstrations. See [`Distiller`].

mod checkpoint;
mod config;
mod data;
mod distiller;
mod teacher;

pub use config::DistillConfig;
pub use data::DistillData;
pub use distiller::{DistillReport, Distiller};
pub use teacher::{ModelTeacher, Teacher, TeacherStates, TopRecord, TopTeacher};
