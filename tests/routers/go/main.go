// Go's ServeMux: it matches decoded segments, and redirects a path that is not clean.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
	"regexp"
	"strings"
)

type route struct {
	Method, Path, Scope string
	verb                string
}

var (
	verbs  = regexp.MustCompile(`\}(:\w+)$`)
	rests  = regexp.MustCompile(`\{(\w+)\+\}`)
	params = regexp.MustCompile(`\{(\w+)`)
)

func main() {
	text, err := os.ReadFile(os.Getenv("ROUTES"))
	if err != nil {
		log.Fatal(err)
	}
	var routes []route
	if err := json.Unmarshal(text, &routes); err != nil {
		log.Fatal(err)
	}
	// ServeMux has no template like `{id}:verb`: the handler compares the end of the parameter.
	patterns := map[string][]route{}
	for _, r := range routes {
		pattern := r.Method + " " + r.Path
		if found := verbs.FindStringSubmatch(r.Path); found != nil {
			r.verb = found[1]
			pattern = strings.TrimSuffix(pattern, r.verb)
		}
		pattern = rests.ReplaceAllString(pattern, "{$1...}")
		if strings.HasSuffix(pattern, "/") {
			pattern += "{$}"
		}
		patterns[pattern] = append(patterns[pattern], r)
	}
	mux := http.NewServeMux()
	for pattern, choices := range patterns {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { answer(w, r, choices) })
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), mux))
}

func answer(w http.ResponseWriter, r *http.Request, choices []route) {
	for _, choice := range choices {
		values, last := map[string]string{}, ""
		for _, found := range params.FindAllStringSubmatch(choice.Path, -1) {
			last = r.PathValue(found[1])
			values[found[1]] = last
		}
		if !strings.HasSuffix(last, choice.verb) {
			continue
		}
		w.Header().Set("X-Handler", choice.Scope)
		w.Header().Set("X-Path", r.URL.EscapedPath())
		_ = json.NewEncoder(w).Encode(map[string]any{"handler": choice.Scope, "params": values})
		return
	}
	http.NotFound(w, r)
}
