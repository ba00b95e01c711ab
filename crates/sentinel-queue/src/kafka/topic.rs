//! Topics: found, made where they are missing, and checked before anything is sent.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::time::{Instant, sleep};

use super::args::ConnectionConfig;
use super::client::{ConnectError, Telling, settings};

/// Longest wait for one answer while starting.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Pause between two looks at a topic that is being made.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// What a topic must be.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) partitions: u16,
    /// Settings of the topic when we make it.
    pub(super) settings: Vec<(&'static str, String)>,
    /// Largest record that will be sent.
    pub(super) record_bytes_max: Option<usize>,
}

impl<'a> Wanted<'a> {
    /// The topic of events.
    pub(super) fn events(config: &'a ConnectionConfig, record_bytes_max: Option<usize>) -> Self {
        let mut settings = vec![
            // The brokers' clock at the moment of appending: with it, a record's time says what was appended before it.
            ("message.timestamp.type", "LogAppendTime".to_owned()),
            ("retention.ms", config.retention.as_millis().to_string()),
            ("compression.type", "producer".to_owned()),
        ];
        settings.extend(insync(config));
        Self {
            name: &config.topic,
            partitions: config.partitions,
            settings,
            record_bytes_max,
        }
    }

    /// The topic of dead letters: one partition, the newest word on each.
    pub(super) fn dead_letters(config: &'a ConnectionConfig) -> Self {
        let mut settings = vec![("cleanup.policy", "compact".to_owned())];
        settings.extend(insync(config));
        Self {
            name: &config.dlq_topic,
            partitions: 1,
            settings,
            record_bytes_max: None,
        }
    }
}

/// An acknowledgement by all but one survives the loss of one, and the loss of one does not stop the rest.
fn insync(config: &ConnectionConfig) -> Option<(&'static str, String)> {
    let replicas = config.replicas.filter(|replicas| *replicas > 1)?;
    Some(("min.insync.replicas", (replicas - 1).to_string()))
}

/// Waits until the topic is there and fit.
pub(super) async fn ensure(config: &ConnectionConfig, wanted: &Wanted<'_>) -> Result<(), ConnectError> {
    let deadline = Instant::now() + config.start_timeout;
    let admin: AdminClient<Telling> =
        settings(config)?
            .create_with_context(Telling)
            .map_err(|source| ConnectError::Client {
                brokers: config.brokers.clone(),
                source,
            })?;
    let mut asked = false;
    loop {
        let missing = match partitions(&admin, wanted.name) {
            Ok(Some(_)) => break,
            Ok(None) => None,
            Err(error) => Some(error),
        };
        let late = Instant::now() >= deadline;
        match missing {
            Some(source) if late => {
                return Err(ConnectError::Unreachable {
                    brokers: config.brokers.clone(),
                    source,
                });
            }
            None if late || !config.create_topics => {
                return Err(ConnectError::Missing {
                    topic: wanted.name.to_owned(),
                });
            }
            None if !asked => {
                create(&admin, config, wanted).await?;
                asked = true;
            }
            Some(_) | None => sleep(LOOK_PAUSE).await,
        }
    }
    check(&admin, wanted).await
}

/// How many partitions a topic has, once each has a leader; `None` while there is no such topic.
fn partitions(admin: &AdminClient<Telling>, name: &str) -> Result<Option<usize>, KafkaError> {
    let client: &Client<Telling> = admin.inner();
    let ask = || client.fetch_metadata(Some(name), ANSWER_WAIT);
    let metadata = match tokio::runtime::Handle::current().runtime_flavor() {
        tokio::runtime::RuntimeFlavor::MultiThread => tokio::task::block_in_place(ask),
        _ => ask(),
    }?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == name);
    let Some(topic) = topic else { return Ok(None) };
    if let Some(fault) = topic.error() {
        return match RDKafkaErrorCode::from(fault) {
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => Ok(None),
            code => Err(KafkaError::MetadataFetch(code)),
        };
    }
    if topic.partitions().iter().any(|partition| partition.leader() < 0) {
        return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable));
    }
    Ok(Some(topic.partitions().len()).filter(|count| *count > 0))
}

async fn create(admin: &AdminClient<Telling>, config: &ConnectionConfig, wanted: &Wanted<'_>) -> Result<(), ConnectError> {
    let fault = |source| ConnectError::Create {
        topic: wanted.name.to_owned(),
        source,
    };
    let replicas = config.replicas.map_or(-1, i32::from);
    let new = NewTopic::new(wanted.name, wanted.partitions.into(), TopicReplication::Fixed(replicas));
    let new = wanted.settings.iter().fold(new, |new, (name, value)| new.set(name, value));
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_WAIT));
    let answers = admin.create_topics([&new], &options).await.map_err(fault)?;
    for answer in answers {
        match answer {
            Ok(_) => tracing::info!(topic = wanted.name, partitions = wanted.partitions, "topic made"),
            // Someone else did, a moment ago.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(fault(KafkaError::AdminOp(code))),
        }
    }
    Ok(())
}

async fn check(admin: &AdminClient<Telling>, wanted: &Wanted<'_>) -> Result<(), ConnectError> {
    let options = AdminOptions::new().request_timeout(Some(ANSWER_WAIT));
    let described = admin
        .describe_configs([&ResourceSpecifier::Topic(wanted.name)], &options)
        .await;
    // Not every client may ask this. What is not known is not refused.
    let Some(topic) = described.ok().and_then(|mut answers| answers.pop()).and_then(Result::ok) else {
        tracing::warn!(
            topic = wanted.name,
            "the settings of the topic could not be read, so they are not checked"
        );
        return Ok(());
    };
    let value = |name: &str| topic.get(name).and_then(|entry| entry.value.clone());
    let unfit = |setting, value: &str, wanted_is| ConnectError::Unfit {
        topic: wanted.name.to_owned(),
        setting,
        value: value.to_owned(),
        wanted: wanted_is,
    };
    if let (Some(bytes), Some(text)) = (wanted.record_bytes_max, value("max.message.bytes"))
        && text.parse::<usize>().is_ok_and(|taken| taken < bytes)
    {
        let wanted_is = format!("records may have {bytes} bytes (--kafka-record-bytes-max)");
        return Err(unfit("max.message.bytes", &text, wanted_is));
    }
    let policy = value("cleanup.policy").unwrap_or_default();
    let compacts = wanted.settings.iter().any(|(name, _)| *name == "cleanup.policy");
    match (policy.contains("compact"), compacts) {
        (true, false) => Err(unfit(
            "cleanup.policy",
            &policy,
            "every record counts, not the newest of each key".to_owned(),
        )),
        (false, true) if !policy.is_empty() => Err(unfit(
            "cleanup.policy",
            &policy,
            "letters must stay until they are discarded (compact)".to_owned(),
        )),
        _ => Ok(()),
    }
}
