package main

import (
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/pexpress/pexpress/cache/remote"
)

// serverWords are those of a codeserver.
var serverWords = remote.Words{
	Server: "codeserver", Variable: "PEXPRESS_CODESERVER", Flag: "--to", Clear: "HOST:PORT", Secure: "grpcs://HOST:PORT",
}

// serverHint says why a codeserver was not reached or did not take who asked, and what helps: text itself, if that says it
// best.
func serverHint(code codes.Code, text string) string {
	switch code {
	case codes.Unavailable:
		if says := serverWords.Hint(text); says != "" {
			return says
		}
	case codes.Unimplemented:
		return "what answers is no codeserver, or one of another release: " + text
	case codes.Unauthenticated:
		if strings.Contains(text, "none were shown") {
			return "the server asks who you are: set PEXPRESS_CODESERVER_TOKEN, or PEXPRESS_CODESERVER_CERT and PEXPRESS_CODESERVER_KEY"
		}
		return text + "; the token is what PEXPRESS_CODESERVER_TOKEN holds, else with pexpress ci the run's own"
	}
	return text
}
