//! Health: `grpc.health.v1`. Who watches is told of the end, and then let go: a stream that never
//! ends would hold up every drain for as long as it may take.

use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as Answers, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_health::server::{HealthReporter, HealthService, WatchStream};

/// What is said of each service, to those who ask and to those who watch.
pub(super) struct Health {
    asked: HealthReporter,
    watched: HealthReporter,
    services: Vec<&'static str>,
}

/// Answers what the reporters say.
pub(super) struct Reports {
    asked: HealthService,
    watched: HealthService,
}

impl Health {
    /// Of these services, none of which does its work yet, and what answers for them.
    pub(super) async fn of(services: Vec<&'static str>) -> (Self, HealthServer<Reports>) {
        let (asked, watched) = (HealthReporter::new(), HealthReporter::new());
        let reports = Reports {
            asked: HealthService::from_health_reporter(asked.clone()),
            watched: HealthService::from_health_reporter(watched.clone()),
        };
        let health = Self { asked, watched, services };
        // Before anybody can ask: a reporter begins with "" as serving.
        health.say(ServingStatus::NotServing).await;
        (health, HealthServer::new(reports))
    }

    /// Says how every service does.
    pub(super) async fn say(&self, status: ServingStatus) {
        for service in &self.services {
            self.asked.set_service_status(service, status).await;
            self.watched.set_service_status(service, status).await;
        }
    }

    /// Says that no service does its work any more, and ends the streams that say so.
    pub(super) async fn end(&mut self) {
        self.say(ServingStatus::NotServing).await;
        // What was said is read before the end is.
        for service in &self.services {
            self.watched.clear_service_status(service).await;
        }
    }
}

#[tonic::async_trait]
impl Answers for Reports {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.asked.check(request).await
    }

    type WatchStream = WatchStream;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        self.watched.watch(request).await
    }
}
