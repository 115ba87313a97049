package main

import (
	"cmp"
	"fmt"
	"log"
	"net/http"
	"net/http/cgi"
)

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", hello)
	mux.HandleFunc("GET /{name}", hello)

	// Answers the one request that this process was started for.
	if err := cgi.Serve(mux); err != nil {
		log.Fatal(err)
	}
}

func hello(w http.ResponseWriter, r *http.Request) {
	name := cmp.Or(r.PathValue("name"), "world")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "Hello, %s, from Go!\n", name)
}
