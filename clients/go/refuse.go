package main

import (
	"encoding/json"
	"log"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	pb "guarded/scopegate/v1"
)

// refuse tells the client why not.
func refuse(w http.ResponseWriter, answer *pb.CheckResponse, err error) {
	if err != nil {
		log.Printf("scopegate: %v", err)
	}
	if status.Code(err) == codes.InvalidArgument { // The client's concern. Everything else is ours.
		answer = &pb.CheckResponse{HttpStatus: 400, Error: "invalid_request", Message: status.Convert(err).Message()}
	} else if answer.GetHttpStatus() < 400 {
		answer = &pb.CheckResponse{HttpStatus: 503, Error: "temporarily_unavailable", Message: "Try again in a moment."}
	}
	scope := `", scope="` + strings.Join(answer.MissingScopes, " ") + `"`
	switch answer.HttpStatus {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token`+scope)
	case http.StatusForbidden:
		w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope`+scope)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(answer.HttpStatus))
	json.NewEncoder(w).Encode(map[string]string{"error": answer.Error, "message": answer.Message})
}
