//! Tools of other programs through the [Model Context Protocol](https://modelcontextprotocol.io),
//! over standard input and output.
//!
//! An [`McpServer`] starts a [`Program`](super::process::Program), which may be sandboxed,
//! initializes it (`initialize`) and lists its tools (`tools/list`), which a
//! [`ToolSet`](super::tools::ToolSet) can combine with others. A call (`tools/call`) is one
//! request. The protocol has no reset, no reward and no end of an episode: these belong to the
//! environment that uses the tools, such as an [`McpEnvironment`].
//!
//! The server determines the protocol version, from 2024-11-05 to 2025-11-25. A server's requests
//! other than `ping` get an error; notifications and lines that are not messages are ignored.

mod client;
pub(super) mod content;
mod environment;
mod server;

pub use environment::McpEnvironment;
pub use server::McpServer;
