// An API that calls a handler only if scopegate allows the request.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
)

func main() {
	s, err := connect()
	if err != nil {
		log.Fatal(err)
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "8000"
	}
	http.HandleFunc("/api/v2/users/", guard(s, http.MethodPatch, change))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, nil))
}

func change(w http.ResponseWriter, r *http.Request, id string) {
	user := map[string]any{}
	json.NewDecoder(r.Body).Decode(&user)
	user["id"] = id
	json.NewEncoder(w).Encode(user)
}
