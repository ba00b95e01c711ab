//! Running one server: starting it, finding out whether it answers, starting it again when it ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use service_kit::backoff::{Backoff, BackoffPolicy};
use service_kit::{Clock, LogLevel, LogStore, Shutdown, Stage, Tasks};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::Key;
use super::engine;
use super::launch::{Common, Image, Launch, Program, expand};
use super::log::Log;
use super::probe::{self, Answer};
use super::process::{Output, Process};
use crate::folder::NamespaceKeys;

/// Pauses between two starts.
const RESTARTS: BackoffPolicy = BackoffPolicy {
    first: Duration::from_millis(500),
    pause_max: Duration::from_secs(30),
    attempts_max: None,
};
/// A server that ran this long before it ended is started again as if for the first time.
const RAN_WELL: Duration = Duration::from_mins(1);
/// Pauses between two looks at a server that does not answer yet, at first and at last.
const LOOK_FIRST: Duration = Duration::from_millis(50);
const LOOK_LAST: Duration = Duration::from_secs(2);
/// Pause between two looks at a server that answers.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// A server that starts is not complained of for so long.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for a container engine to remove what is left of an earlier run.
const TIDY_WAIT_MAX: Duration = Duration::from_secs(20);
/// Longest wait for the end of what an ended process wrote.
const LAST_WORDS_WAIT_MAX: Duration = Duration::from_secs(1);
/// Longest secret read from a file.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// What programs get of our own environment. The rest may hold secrets that are none of theirs.
const INHERITED: [&str; 11] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "VIRTUAL_ENV",
];

/// How a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Up,
    Failing,
}

/// How a server is, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    /// Where the gateway reaches it, once that is known.
    pub(crate) upstream: Option<Uri>,
    /// One sentence for people.
    pub(crate) message: String,
    /// Starts after the first.
    pub(crate) restarts: u32,
}

/// What runners need of their surroundings.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) tasks: Tasks,
    /// Woken at each change of a state.
    pub(crate) news: Arc<Notify>,
    /// Keys with which servers send events of their own.
    pub(crate) keys: NamespaceKeys,
    /// Where programs are looked for.
    pub(crate) search_path: Vec<PathBuf>,
}

/// A server being run. Dropping it ends the server.
#[derive(Debug)]
pub(crate) struct Runner {
    /// Closed when dropped, which is the wish to stop.
    _stop: watch::Sender<()>,
    state: watch::Receiver<State>,
}

impl Runner {
    /// Runs a server as a task of the pipeline stage: calls that are under way when the process stops still find it. It begins when
    /// `before`, an earlier revision of it, is gone.
    pub(crate) fn start(
        key: &Key,
        launch: Launch,
        before: Option<Self>,
        log: (PathBuf, LogStore),
        around: &Surroundings,
    ) -> Self {
        let (stop, stopped) = watch::channel(());
        let (sender, state) = watch::channel(State {
            phase: Phase::Starting,
            upstream: match &launch {
                Launch::Reached(upstream) => Some(upstream.clone()),
                Launch::Program(_) | Launch::Image(_) => None,
            },
            message: "it is being started".to_owned(),
            restarts: 0,
        });
        let ended = before.map(|before| before.state);
        let run = Run {
            key: key.clone(),
            state: sender,
            stopped,
            shutdown: around.tasks.shutdown(Stage::Pipeline),
            around: around.clone(),
            clock: around.tasks.clock().clone(),
        };
        around
            .tasks
            .spawn_finite(Stage::Pipeline, format!("server {key}"), async move {
                if let Some(mut ended) = ended {
                    while ended.changed().await.is_ok() {}
                }
                run.run(launch, log).await;
                Ok(())
            });
        Self { _stop: stop, state }
    }

    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }
}

struct Run {
    key: Key,
    state: watch::Sender<State>,
    stopped: watch::Receiver<()>,
    shutdown: Shutdown,
    around: Surroundings,
    clock: Clock,
}

impl Run {
    async fn run(mut self, launch: Launch, (folder, store): (PathBuf, LogStore)) {
        match launch {
            Launch::Reached(upstream) => {
                let look = self.look(vec![upstream], "it runs elsewhere");
                let mut stopped = self.stopped.clone();
                tokio::select! {
                    () = look => {}
                    () = stop_wished(&mut stopped, &self.shutdown) => {}
                }
            }
            Launch::Program(_) | Launch::Image(_) => {
                let log = Log::open(&folder, &self.key, store, &self.clock).await;
                self.keep_running(&launch, log).await;
            }
        }
    }

    /// Starts it again and again.
    async fn keep_running(&mut self, launch: &Launch, mut log: Log) {
        let mut backoff = Backoff::new(RESTARTS);
        let mut port = None;
        loop {
            let started = Instant::now();
            let why = match self.run_once(launch, &mut port, &mut log).await {
                Ok(()) => return,
                Err(why) => why,
            };
            if started.elapsed() > RAN_WELL {
                backoff.reset();
            }
            tracing::warn!(
                server = self.key.name,
                namespace = self.key.namespace,
                why,
                "the server is started again soon"
            );
            log.note(LogLevel::Warn, format!("{why}; it is started again soon")).await;
            self.tell(|state| {
                state.phase = Phase::Failing;
                state.message = why;
                state.restarts += 1;
            });
            let pause = backoff.next().unwrap_or(RESTARTS.pause_max);
            tokio::select! {
                () = sleep(pause) => {}
                () = stop_wished(&mut self.stopped, &self.shutdown) => return,
            }
        }
    }

    /// One life of the server. `Ok`: it was stopped because we wished so; `Err`: why it is not running.
    async fn run_once(&mut self, launch: &Launch, port: &mut Option<u16>, log: &mut Log) -> Result<(), String> {
        let (common, tidy) = match launch {
            Launch::Program(program) => (&program.common, None),
            Launch::Image(image) => {
                let engine = engine::engine(&self.around.search_path).ok_or(
                    "it is an image, and neither docker nor podman is on the PATH; install one, or publish a `command` or an \
                     `--upstream` instead",
                )?;
                (&image.common, Some(engine))
            }
            Launch::Reached(_) => return Ok(()),
        };
        let env = self.environment(common).await?;
        let chosen = choose_port(env.get("PORT"), common.port, *port).await?;
        *port = Some(chosen);
        if let Some(engine) = &tidy {
            self.remove_container(engine).await;
        }
        let (command, shown) = match (launch, &tidy) {
            (Launch::Image(image), Some(engine)) => self.container(engine, image, chosen, env),
            (Launch::Program(program), _) => {
                let ingest = self.around.keys.of(&self.key.namespace).await;
                let ingest = ingest.map_err(|error| format!("it gets no key to send events with: {error}"))?;
                self.program(program, chosen, env, ingest)?
            }
            _ => return Ok(()),
        };
        let (process, mut output) = Process::start(command).map_err(|error| format!("`{shown}` cannot be started: {error}"))?;
        log.note(LogLevel::Info, format!("started `{shown}` on port {chosen}")).await;
        tracing::info!(
            server = self.key.name,
            namespace = self.key.namespace,
            pid = process.id(),
            port = chosen,
            "server started"
        );
        let ended = self.watch(process, &mut output, places(common, chosen), &shown, log).await;
        if let Some(engine) = &tidy {
            self.remove_container(engine).await;
        }
        let Some(status) = ended else {
            log.note(LogLevel::Info, "stopped").await;
            return Ok(());
        };
        let last = log.take_last();
        let said = if last.is_empty() {
            String::new()
        } else {
            format!("; its last words: {last}")
        };
        Err(format!("`{shown}` {}{said}", ending(status)))
    }

    /// Reads what it writes and looks whether it answers, until it ends (how) or shall end (`None`). Then nothing of it is left.
    async fn watch(
        &self,
        mut process: Process,
        output: &mut Output,
        places: Vec<Uri>,
        shown: &str,
        log: &mut Log,
    ) -> Option<std::io::Result<ExitStatus>> {
        let subject = format!("`{shown}` runs");
        let mut stopped = self.stopped.clone();
        let mut reading = std::pin::pin!(log.capture(output));
        let mut looking = std::pin::pin!(self.look(places, &subject));
        let mut is_read = false;
        let ended = loop {
            tokio::select! {
                status = process.ended() => break Some(status),
                read = &mut reading, if !is_read => {
                    is_read = true;
                    if let Err(error) = read {
                        tracing::warn!(server = self.key.name, %error, "what the server writes cannot be read");
                    }
                }
                () = &mut looking => break None,
                () = stop_wished(&mut stopped, &self.shutdown) => break None,
            }
        };
        process.stop().await;
        // What it wrote last is still in the pipe; those who hold its other end are gone by now.
        if !is_read {
            let _rest = timeout(LAST_WORDS_WAIT_MAX, reading).await;
        }
        ended
    }

    /// Looks at each place whether a server answers there, for ever, and tells every change.
    async fn look(&self, places: Vec<Uri>, subject: &str) {
        let started = Instant::now();
        let mut pause = LOOK_FIRST;
        // Where it answered at the last look.
        let mut found: Option<Uri> = None;
        loop {
            let answered = match &found {
                Some(upstream) => probe::listens(upstream).await.map(|()| upstream.clone()),
                None => look_once(&places).await,
            };
            found = answered.as_ref().ok().cloned();
            match answered {
                Ok(upstream) => {
                    let message = format!("{subject} and answers at {upstream}");
                    self.tell(|state| {
                        state.phase = Phase::Up;
                        state.upstream = Some(upstream);
                        state.message = message;
                    });
                    pause = LOOK_FIRST;
                    sleep(LOOK_AGAIN).await;
                }
                Err(why) => {
                    let before = self.state.borrow().phase;
                    let is_late = before == Phase::Up || started.elapsed() > PATIENCE;
                    self.tell(|state| {
                        // Why it ended before is worth more than that it has just been started again.
                        if is_late || before == Phase::Starting {
                            state.phase = if is_late { Phase::Failing } else { Phase::Starting };
                            state.message = format!("{subject}, but {why}");
                        }
                        if state.upstream.is_none() {
                            state.upstream = places.first().cloned();
                        }
                    });
                    sleep(pause).await;
                    pause = (pause * 2).min(LOOK_LAST);
                }
            }
        }
    }

    fn tell(&self, change: impl FnOnce(&mut State)) {
        let is_news = self.state.send_if_modified(|state| {
            let before = state.clone();
            change(state);
            *state != before
        });
        if is_news {
            self.around.news.notify_one();
        }
    }

    /// Variables of the spec, with secrets read from their files.
    async fn environment(&self, common: &Common) -> Result<BTreeMap<String, String>, String> {
        let mut env = common.env.clone();
        for (name, path) in &common.secrets {
            let missing = |error: std::io::Error| {
                format!(
                    "the secret for {name} cannot be read from {}: {error}; put it there, readable for you alone",
                    path.display()
                )
            };
            let bytes = tokio::fs::metadata(path).await.map_err(missing)?.len();
            if bytes > SECRET_BYTES_MAX {
                return Err(format!(
                    "the secret in {} has {bytes} bytes, at most {SECRET_BYTES_MAX} are read",
                    path.display()
                ));
            }
            let text = tokio::fs::read_to_string(path).await.map_err(missing)?;
            env.insert(name.clone(), text.trim_end_matches('\n').to_owned());
        }
        Ok(env)
    }

    /// All variables of a server that listens on `port`.
    fn variables(&self, port: u16, env: BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut all = BTreeMap::from([
            ("PORT".to_owned(), port.to_string()),
            ("MCP_PORT".to_owned(), port.to_string()),
            ("MCP_SERVER_NAME".to_owned(), self.key.name.clone()),
            ("MCP_SERVER_NAMESPACE".to_owned(), self.key.namespace.clone()),
        ]);
        let expanded: Vec<_> = env.into_iter().map(|(name, value)| (name, expand(&value, &all))).collect();
        all.extend(expanded);
        all
    }

    fn program(
        &self,
        program: &Program,
        port: u16,
        mut env: BTreeMap<String, String>,
        ingest: (String, PathBuf),
    ) -> Result<(Command, String), String> {
        let (ingest, key) = ingest;
        for (name, value) in [
            // Not on every address: those who reach the machine would get past the gateway.
            ("HOST", "127.0.0.1".to_owned()),
            ("MCP_SENTINEL_INGEST_URL", ingest),
            ("MCP_SENTINEL_INGEST_API_KEY_FILE", key.display().to_string()),
        ] {
            env.entry(name.to_owned()).or_insert(value);
        }
        let env = self.variables(port, env);
        let words: Vec<String> = program.command.iter().map(|word| expand(word, &env)).collect();
        let (name, arguments) = words.split_first().ok_or("`command` is empty")?;
        if let Some(folder) = program.folder.as_deref().filter(|folder| !folder.is_dir()) {
            return Err(format!("its working folder {} is no folder", folder.display()));
        }
        let path = if name.contains('/') {
            program.folder.as_deref().unwrap_or(Path::new("")).join(name)
        } else {
            engine::find(name, &self.around.search_path)
                .ok_or_else(|| format!("`{name}` is on no folder of the PATH that mcp-runtime was started with"))?
        };
        let mut command = Command::new(path);
        command.args(arguments).env_clear().envs(inherited()).envs(&env);
        if let Some(folder) = &program.folder {
            command.current_dir(folder);
        }
        Ok((command, words.join(" ")))
    }

    fn container(&self, engine: &Path, image: &Image, port: u16, env: BTreeMap<String, String>) -> (Command, String) {
        let env = self.variables(image.port, env);
        let expanded = Image {
            command: image.command.iter().map(|word| expand(word, &env)).collect(),
            args: image.args.iter().map(|word| expand(word, &env)).collect(),
            ..image.clone()
        };
        let mut command = Command::new(engine);
        command
            .args(engine::run_arguments(&expanded, &self.container_name(), port, env.keys()))
            .envs(&env);
        (
            command,
            format!("{} run {}", engine.file_name().unwrap_or_default().display(), image.reference),
        )
    }

    fn container_name(&self) -> String {
        format!("mcp-{}-{}", self.key.namespace, self.key.name)
    }

    /// An engine keeps what it was not there to clean up, and the name with it.
    async fn remove_container(&self, engine: &Path) {
        let mut command = Command::new(engine);
        command.args(["rm", "--force", &self.container_name()]).kill_on_drop(true);
        let _best_effort = timeout(TIDY_WAIT_MAX, command.output()).await;
    }
}

/// Where a server that listens on `port` may answer.
fn places(common: &Common, port: u16) -> Vec<Uri> {
    if let Some(upstream) = &common.upstream {
        return vec![upstream.clone()];
    }
    let place = |path: &String| format!("http://127.0.0.1:{port}{path}").parse().ok();
    common.paths.iter().filter_map(place).collect()
}

async fn look_once(places: &[Uri]) -> Result<Uri, String> {
    let mut known = Vec::new();
    for place in places {
        match probe::ping(place).await {
            Answer::Here => return Ok(place.clone()),
            Answer::NoSuchPath => known.push(place.path().to_owned()),
            // What does not listen does so at every path.
            Answer::Not(why) => return Err(why),
        }
    }
    let authority = places
        .first()
        .and_then(Uri::authority)
        .map_or("it", http::uri::Authority::as_str);
    Err(format!(
        "{authority} knows none of {}; is it an MCP server over HTTP?",
        known.join(", ")
    ))
}

/// The port that the spec's own variable names, else the one it declares, else the one of the last start, else any that is free.
async fn choose_port(named: Option<&String>, declared: Option<u16>, last: Option<u16>) -> Result<u16, String> {
    if let Some(port) = named {
        return port
            .parse()
            .map_err(|_| format!("its variable PORT is {port:?}, which is no port"));
    }
    for port in [last, declared, Some(0)].into_iter().flatten() {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await
            && let Ok(address) = listener.local_addr()
        {
            return Ok(address.port());
        }
    }
    Err("no port of this machine is free".to_owned())
}

/// Waits until the server shall end: it was retired, or the process stops.
async fn stop_wished(stopped: &mut watch::Receiver<()>, shutdown: &Shutdown) {
    tokio::select! {
        _closed = stopped.changed() => {}
        () = shutdown.requested() => {}
    }
}

fn ending(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("ended ({status})"),
        Err(error) => format!("was lost sight of: {error}"),
    }
}

fn inherited() -> impl Iterator<Item = (&'static str, std::ffi::OsString)> {
    #[expect(
        clippy::disallowed_methods,
        reason = "what programs need of the machine they run on is no option of ours"
    )]
    INHERITED.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)))
}
