//! Replicated: what several replicas of one store share in etcd.
//!
//! Not here yet: the log of changes, the sessions of replicas, and the barrier. So far this is the
//! client of etcd alone.

pub mod etcd;
