//! An environment of the tools of an MCP server.

use super::super::ToolEnvironment;
use super::super::contract::{Environment, EnvironmentError, Opening};
use super::McpServer;
use crate::types::Problem;

/// A [`ToolEnvironment`] with the tools of an MCP server. Each episode has its own process if the
/// server is [`per_episode`](McpServer::per_episode).
///
/// ```no_run
/// use rlvr::environment::ToolEnvironment;
/// use rlvr::environment::mcp::{McpEnvironment, McpServer};
/// use rlvr::environment::process::Program;
/// use rlvr::environment::tools::{Calculator, ReplyParser, ToolSet};
///
/// let server = McpServer::new(Program::parse("python3 server.py")?)?.per_episode();
/// let tools = ToolSet::new().with(Calculator)?;
/// let environment = McpEnvironment::new(
///     server,
///     ToolEnvironment::new(tools, ReplyParser::named("hermes")?),
/// );
/// # let _ = environment;
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Debug)]
pub struct McpEnvironment {
    server: McpServer,
    environment: ToolEnvironment,
}

impl McpEnvironment {
    /// Creates an environment with the tools of `environment`, followed by the server's.
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
        let tools = self.server.tools()?;
        let environment = self.environment.clone().with_tools(tools)?;
        environment.open(problem, seed)
    }
}
