// An API that asks scopegate before it does anything.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/local"
	"google.golang.org/grpc/keepalive"
	pb "guarded/scopegate/v1"
)

const retry = `{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 2, "initialBackoff": "0.02s",
	"maxBackoff": "0.02s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`

func main() { // One connection for the process, in plain text on this machine. Elsewhere: credentials.NewTLS.
	scopegate, err := grpc.Dial(os.Getenv("SCOPEGATE_ADDRESS"), grpc.WithTransportCredentials(local.NewCredentials()),
		grpc.WithDefaultServiceConfig(retry), grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second}))
	if err != nil {
		log.Fatal(err)
	}
	var key []string
	if text := os.Getenv("SCOPEGATE_KEY"); text != "" {
		key = []string{"authorization", "Bearer " + text}
	}
	http.HandleFunc("/api/v2/users/", guard(pb.NewAuthorizationServiceClient(scopegate), key, http.MethodPatch, change))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}

func change(w http.ResponseWriter, r *http.Request, id string) {
	user := map[string]any{}
	json.NewDecoder(r.Body).Decode(&user)
	user["id"] = id
	json.NewEncoder(w).Encode(user)
}
