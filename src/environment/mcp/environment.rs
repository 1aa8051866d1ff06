//! Tools of a server as an environment.

use std::sync::Arc;

use super::super::ToolEnvironment;
use super::super::contract::{Environment, EnvironmentError, Opening};
use super::super::tools::Tool;
use super::McpServer;
use crate::types::Problem;

/// A [`ToolEnvironment`] with the tools of a server, of its own for each episode if it is [so](McpServer::per_episode).
///
/// ```no_run
/// use rlvr::environment::ToolEnvironment;
/// use rlvr::environment::mcp::{McpEnvironment, McpServer};
/// use rlvr::environment::process::Program;
/// use rlvr::environment::tools::{Calculator, ReplyParser, ToolSet};
///
/// let server = McpServer::new(Program::parse("python3 server.py")?)?.per_episode();
/// let tools = ToolSet::new().with(Calculator)?;
/// let environment = McpEnvironment::new(server, ToolEnvironment::new(tools, ReplyParser::named("hermes")?));
/// # let _ = environment;
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Debug)]
pub struct McpEnvironment {
    server: McpServer,
    environment: ToolEnvironment,
}

impl McpEnvironment {
    /// The server's tools after those of `environment`.
    pub fn new(server: McpServer, environment: ToolEnvironment) -> Self {
        Self {
            server,
            environment,
        }
    }
}

impl Environment for McpEnvironment {
    fn name(&self) -> &str {
        self.environment.name()
    }

    fn open(&self, problem: &Problem, seed: u64) -> Result<Opening, EnvironmentError> {
        let tools = self.server.tools()?.into_iter();
        let tools = tools.map(|tool| Arc::new(tool) as Arc<dyn Tool>);
        let environment = self.environment.clone().with_tools(tools)?;
        environment.open(problem, seed)
    }
}
