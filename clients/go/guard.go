package main

import (
	"errors"
	"net/http"
	"path"

	pb "guarded/scopegate/v1"
)

// guard calls the handler of a method on a record only if scopegate allows the request.
func guard(s *scopegate, jwts *verifier, method string, handle func(http.ResponseWriter, *http.Request, string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method { // The method that scopegate checks must be the method of the handler.
			http.Error(w, "only "+method, http.StatusMethodNotAllowed)
			return
		}
		check, err := authenticate(s, jwts, r)
		var challenge unauthenticated
		if errors.As(err, &challenge) {
			w.Header().Set("WWW-Authenticate", string(challenge))
			refuse(w, http.StatusUnauthorized, "invalid_token", "Send valid credentials.")
			return
		}
		if err != nil {
			failed(w, err)
			return
		}
		// The path as it was sent, not decoded.
		check.Endpoint = &pb.Endpoint{Method: r.Method, Path: r.URL.EscapedPath()}
		// With the owner, scopegate also decides for users who may access only their own records.
		check.ResourceOwnerId = path.Base(r.URL.Path)
		ctx, cancel := s.call(r.Context())
		defer cancel()
		response, err := s.authorization.Check(ctx, check)
		if err != nil {
			failed(w, err)
		} else if response.Decision != pb.Decision_DECISION_ALLOWED {
			denied(w, response)
		} else {
			handle(w, r, check.ResourceOwnerId)
		}
	}
}
