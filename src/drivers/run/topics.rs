//! MQTT devices: what to subscribe to, and readings for each message.

use std::sync::Arc;

use super::{super::TopicDecoder, ear::Ear};
use crate::{
    config::filter::Filter,
    reading::{PointId, Reading},
};

/// The MQTT devices. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Topics(Arc<[Subscription]>);

/// One MQTT device.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) filter: Filter,
    pub(super) decoder: Box<dyn TopicDecoder>,
    pub(super) ear: Arc<Ear>,
}

impl Topics {
    pub(super) fn new(subscriptions: Vec<Subscription>) -> Self {
        Self(subscriptions.into())
    }

    /// Whether a device listens to the topic.
    pub fn wants(&self, topic: &str) -> bool {
        self.0.iter().any(|subscription| subscription.filter.matches(topic))
    }

    /// Whether the device of a point listens to the topic: what is said there may be a value of the point.
    pub fn feeds(&self, topic: &str, point: &PointId) -> bool {
        self.0.iter().any(|subscription| subscription.ear.point(point).is_some() && subscription.filter.matches(topic))
    }

    /// What a message says, dated now. Nothing when no device listens to the topic.
    pub fn deliver(&self, topic: &str, payload: &[u8]) -> Vec<Reading> {
        let listens = |subscription: &&Subscription| subscription.filter.matches(topic);
        let hear = |subscription: &Subscription| {
            let mut said = Vec::new();
            subscription.decoder.decode(topic, payload, &mut said);
            subscription.ear.hear(said)
        };
        self.0.iter().filter(listens).flat_map(hear).collect()
    }
}
