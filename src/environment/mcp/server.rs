//! MCP servers and their tools.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::super::process::Program;
use super::super::process::program::Launcher;
use super::super::tools::{Tool, ToolError};
use super::client::{Client, Definition, Failure};
use crate::Result;

/// An MCP server, started as a program that uses its standard input and output.
///
/// All episodes share one process, which is restarted when it has ended. With
/// [`per_episode`](Self::per_episode), each episode has its own process, for stateful tools.
///
/// ```no_run
/// use rlvr::environment::mcp::McpServer;
/// use rlvr::environment::process::Program;
/// use rlvr::environment::tools::ToolSet;
///
/// let server = McpServer::new(Program::parse("python3 server.py")?)?;
/// let mut tools = ToolSet::new();
/// for tool in server.tools()? {
///     tools.add(tool)?;
/// }
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone)]
pub struct McpServer {
    shared: Arc<Shared>,
    per_episode: bool,
}

struct Shared {
    launcher: Arc<Launcher>,
    client: Mutex<Arc<Client>>,
    definitions: Vec<Definition>,
}

impl McpServer {
    /// Starts the server and lists its tools.
    ///
    /// # Errors
    /// Returns an error if the program cannot be started or is not an MCP server.
    pub fn new(program: Program) -> Result<Self> {
        let launcher = Arc::new(Launcher::new(program)?);
        let client = Client::start(&launcher)?;
        let definitions = client.tools()?;
        Ok(Self {
            shared: Arc::new(Shared {
                launcher,
                client: Mutex::new(Arc::new(client)),
                definitions,
            }),
            per_episode: false,
        })
    }

    /// Starts a new process for every call of [`tools`](Self::tools). The process ends when the
    /// last of its tools is dropped.
    #[must_use]
    pub fn per_episode(mut self) -> Self {
        self.per_episode = true;
        self
    }

    /// Returns the tools of the shared process, or of a new one with
    /// [`per_episode`](Self::per_episode).
    ///
    /// The result of a tool is the text of the server's result. A result that the server marks as
    /// an error is [`ToolError::Refused`], for the model to read. If the server ends or does not
    /// answer, the call is [`ToolError::Broken`].
    ///
    /// # Errors
    /// Returns an error if a process cannot be started.
    pub fn tools(&self) -> Result<Vec<Arc<dyn Tool>>> {
        let link = match self.per_episode {
            true => Link::Own(Arc::new(Client::start(&self.shared.launcher)?)),
            false => Link::Shared(self.shared.clone()),
        };
        let tool = |definition: &Definition| -> Arc<dyn Tool> {
            Arc::new(McpTool {
                definition: definition.clone(),
                link: link.clone(),
            })
        };
        Ok(self.shared.definitions.iter().map(tool).collect())
    }
}

impl Shared {
    /// Returns the process, restarted if it has ended.
    fn client(&self) -> Result<Arc<Client>> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if client.is_dead() {
            *client = Arc::new(Client::start(&self.launcher)?);
        }
        Ok(client.clone())
    }
}

#[derive(Clone)]
enum Link {
    Shared(Arc<Shared>),
    Own(Arc<Client>),
}

/// A tool of an [`McpServer`].
#[derive(Clone)]
struct McpTool {
    definition: Definition,
    link: Link,
}

impl Tool for McpTool {
    fn name(&self) -> &str {
        &self.definition.name
    }

    fn description(&self) -> &str {
        self.definition.description.as_deref().unwrap_or_default()
    }

    fn parameters(&self) -> &str {
        &self.definition.parameters.0
    }

    fn call(&self, arguments: &Value) -> Result<String, ToolError> {
        let broken = |error: crate::Error| ToolError::Broken(error.to_string());
        let client = match &self.link {
            Link::Shared(shared) => shared.client().map_err(broken)?,
            Link::Own(client) => client.clone(),
        };
        let result = client.call(&self.definition.name, arguments);
        result.map_err(|failure| match failure {
            Failure::Refused(reason) => ToolError::Refused(reason),
            Failure::Broken(reason) => ToolError::Broken(reason),
        })
    }
}

impl fmt::Debug for McpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpServer")
            .field("program", &self.shared.launcher.name())
            .field("per_episode", &self.per_episode)
            .finish_non_exhaustive()
    }
}
