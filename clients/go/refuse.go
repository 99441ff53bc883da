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

// denied sends the denial of a check.
func denied(w http.ResponseWriter, response *pb.CheckResponse) {
	switch {
	case response.HttpStatus < 400: // Without a decision, the request is not allowed.
		unavailable(w)
		return
	case response.HttpStatus == http.StatusServiceUnavailable: // scopegate cannot verify the token now.
		w.Header().Set("Retry-After", "1")
	case response.HttpStatus == http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	case response.HttpStatus == http.StatusForbidden && response.Error == "invalid_scope":
		scopes := strings.Join(response.MissingScopes, " ")
		w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope", scope="`+scopes+`"`)
	case response.HttpStatus == http.StatusForbidden:
		w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope"`)
	}
	refuse(w, int(response.HttpStatus), response.Error, response.Message)
}

// failed sends the error of a call to scopegate.
func failed(w http.ResponseWriter, err error) {
	log.Printf("scopegate: %v", err)
	if status.Code(err) == codes.InvalidArgument { // The client's mistake. Other errors are not.
		refuse(w, http.StatusBadRequest, "invalid_request", status.Convert(err).Message())
		return
	}
	unavailable(w)
}

func unavailable(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	refuse(w, http.StatusServiceUnavailable, "temporarily_unavailable", "Try again in a moment.")
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"error": code, "message": message})
}
