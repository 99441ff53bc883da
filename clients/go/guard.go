package main

import (
	"net/http"
	"path"
	"strings"

	pb "guarded/scopegate/v1"
)

// guard calls the handler of a method on a record only if scopegate allows the request.
func guard(s *scopegate, method string, handle func(http.ResponseWriter, *http.Request, string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method { // The method that scopegate checks must be the method of the handler.
			http.Error(w, "only "+method, http.StatusMethodNotAllowed)
			return
		}
		header := r.Header.Values("Authorization")
		if len(header) == 0 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, http.StatusUnauthorized, "invalid_token", "Send credentials.")
			return
		}
		// Protocol buffers cannot encode a header that is not UTF-8.
		authorization := strings.ToValidUTF8(header[0], "?")
		check := &pb.CheckRequest{
			Authorization: &authorization,
			// The path as it was sent, not decoded.
			Endpoint: &pb.Endpoint{Method: r.Method, Path: r.URL.EscapedPath()},
			// With the owner, scopegate also decides for users who may access only their own records.
			ResourceOwnerId: path.Base(r.URL.Path),
		}
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
