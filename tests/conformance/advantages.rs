use serde_json::Value;
pub fn check(_case: &Value) -> Result<(), String> { Err("not here yet".into()) }
