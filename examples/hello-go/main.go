// A small web service with the standard library's router. cgi.Serve answers the
// one request that this process was started for.
package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/cgi"
	"os"
	"time"
)

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", hello)
	mux.HandleFunc("GET /hello/{name}", hello)
	mux.HandleFunc("GET /count", count)
	mux.HandleFunc("POST /{$}", echo)

	if err := cgi.Serve(mux); err != nil {
		log.Fatal(err)
	}
}

func hello(w http.ResponseWriter, r *http.Request) {
	greeting := cmp.Or(os.Getenv("GREETING"), "Hello")
	name := cmp.Or(r.PathValue("name"), "world")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "%s, %s, from Go!\n", greeting, name)
}

// count writes a line every 200 ms; each is on its way as soon as it is flushed.
func count(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	for number := 1; number <= 5; number++ {
		fmt.Fprintln(w, number)
		w.(http.Flusher).Flush()
		time.Sleep(200 * time.Millisecond)
	}
}

// echo answers JSON with what it was sent, and what that is.
func echo(w http.ResponseWriter, r *http.Request) {
	var value any
	if err := json.NewDecoder(r.Body).Decode(&value); err != nil {
		http.Error(w, "that is not JSON: "+err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{
		"received": value,
		"type":     fmt.Sprintf("%T", value),
	})
}
