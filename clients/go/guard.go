package main

import (
	"context"
	"net/http"
	"path"
	"time"

	"google.golang.org/grpc/metadata"
	pb "guarded/scopegate/v1"
)

// guard does the work of a method on a record if scopegate allows it. What is no answer is no.
func guard(scopegate pb.AuthorizationServiceClient, key []string, method string, work func(http.ResponseWriter, *http.Request, string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method { // What is asked about must be what is done.
			http.Error(w, "only "+method, http.StatusMethodNotAllowed)
			return
		}
		owner := path.Base(r.URL.Path)
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(r.Context(), key...), 250*time.Millisecond)
		defer cancel()
		answer, err := scopegate.Check(ctx, &pb.CheckRequest{
			// The gateway has authenticated the client. It sets these headers, and drops others'.
			CompanyId:    r.Header.Get("X-Company"),
			CredentialId: r.Header.Get("X-Credential"),
			UserId:       r.Header.Get("X-User"),
			// The path as it was sent, not decoded.
			Endpoint: &pb.Endpoint{Method: r.Method, Path: r.URL.EscapedPath()},
			// Who may reach only their own records is decided there, too.
			ResourceOwnerId: owner,
		})
		if err != nil || answer.Decision != pb.Decision_DECISION_ALLOWED {
			refuse(w, answer, err)
			return
		}
		work(w, r, owner)
	}
}
