package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/local"
	_ "google.golang.org/grpc/health" // For healthCheckConfig.
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	pb "guarded/scopegate/v1"
)

const (
	timeout = 250 * time.Millisecond // For one call, with its retries.
	// All addresses have a connection. A server that is not serving gets no calls. A check changes
	// nothing, so it can be repeated at another address.
	config = `{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}, "methodConfig": [{
	"name": [{"service": "scopegate.v1.AuthorizationService", "method": "Check"},
		{"service": "scopegate.v1.AuthorizationService", "method": "BatchCheck"}],
	"retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.02s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]}}]}`
)

// scopegate is the connection to scopegate. A process needs one: it carries concurrent calls, and
// reconnects.
type scopegate struct {
	authorization pb.AuthorizationServiceClient
	metadata      []string
}

func connect() (*scopegate, error) {
	endpoint, ca, keyFile := os.Getenv("SCOPEGATE_ENDPOINT"), os.Getenv("SCOPEGATE_CA"), os.Getenv("SCOPEGATE_KEY_FILE")
	if endpoint == "" {
		endpoint = "http://127.0.0.1:50051"
	}
	server, err := parse(endpoint)
	if err != nil {
		return nil, err
	}
	transport := local.NewCredentials() // Without TLS, and only on loopback.
	if server.tls && ca == "" {
		transport = credentials.NewTLS(nil) // It trusts the CAs of this machine.
	} else if server.tls {
		transport, err = credentials.NewClientTLSFromFile(ca, "")
	} else if ca != "" {
		err = errors.New("SCOPEGATE_CA is set: SCOPEGATE_ENDPOINT must begin with https://")
	}
	if err != nil {
		return nil, err
	}
	channel, err := grpc.Dial(server.name, grpc.WithResolvers(server.resolver), grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(config), grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second}))
	if err != nil {
		return nil, err
	}
	s := &scopegate{authorization: pb.NewAuthorizationServiceClient(channel)}
	if keyFile != "" { // A key of the role `service`.
		key, err := os.ReadFile(keyFile)
		if err != nil {
			return nil, err
		}
		s.metadata = []string{"authorization", "Bearer " + strings.TrimSpace(string(key))}
	}
	return s, nil
}

// call returns the context of one call to scopegate.
func (s *scopegate) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(metadata.AppendToOutgoingContext(ctx, s.metadata...), timeout)
}
