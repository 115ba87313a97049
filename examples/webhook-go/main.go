// A receiver for webhooks that are signed as GitHub signs them: HMAC-SHA256 of
// the body, in the header X-Hub-Signature-256.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"os"
	"strings"
)

const bodyBytesMax = 1 << 20

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{$}", receive)
	if err := cgi.Serve(mux); err != nil {
		log.Fatal(err)
	}
}

func receive(w http.ResponseWriter, r *http.Request) {
	secret := os.Getenv("WEBHOOK_SECRET")
	if secret == "" {
		log.Print("WEBHOOK_SECRET is not set")
		http.Error(w, "not configured", http.StatusInternalServerError)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyBytesMax))
	if err != nil {
		http.Error(w, "the body is too large or broken", http.StatusBadRequest)
		return
	}
	if !signed(body, r.Header.Get("X-Hub-Signature-256"), secret) {
		log.Print("a call with a wrong signature")
		http.Error(w, "the signature is wrong", http.StatusUnauthorized)
		return
	}
	var event struct {
		Action     string
		Repository struct{ Name string }
	}
	if err := json.Unmarshal(body, &event); err != nil {
		http.Error(w, "that is not JSON: "+err.Error(), http.StatusBadRequest)
		return
	}
	log.Printf("%s in %s", event.Action, event.Repository.Name)
	fmt.Fprintf(w, "noted: %s in %s\n", event.Action, event.Repository.Name)
}

// signed compares in constant time, so that nobody can find out a signature
// byte by byte.
func signed(body []byte, header, secret string) bool {
	given, err := hex.DecodeString(strings.TrimPrefix(header, "sha256="))
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hmac.Equal(mac.Sum(nil), given)
}
