package remote

import "strings"

// Words are those in which a failed connection to one kind of server is told from that to another.
type Words struct {
	Server        string // what runs there
	Variable      string // the variable of its address; those of what it is shown begin so
	Flag          string // has its address
	Clear, Secure string // addresses without TLS, and with it
}

var cacheWords = Words{Server: "cache", Variable: "PEXPRESS_CACHE", Flag: "--cache", Clear: "grpc://", Secure: "grpcs://"}

// Hint says what a failed connection means, by what its error's text has in it, and what helps; "" if nothing is known of it.
func (w Words) Hint(text string) string {
	for _, h := range hints {
		if strings.Contains(text, h.text) {
			return strings.NewReplacer("SERVER", w.Server, "VARIABLE", w.Variable, "FLAG", w.Flag, "CLEAR", w.Clear, "SECURE", w.Secure).Replace(h.says)
		}
	}
	return ""
}

// hint is what a text says.
type hint struct{ text, says string }

// hints are of gRPC's texts. The first that fits holds: that of a connection that was given up has that of one which spoke
// otherwise in it.
var hints = []hint{
	{"does not look like a TLS handshake", "the server speaks without TLS: write CLEAR for SECURE"},
	{"looked like an HTTP/1.1 header", "this is a server's HTTP address: use its gRPC address"},
	{"use of closed network connection", "the server took the connection and says nothing: is it stopped, or overloaded?"},
	{"error reading server preface", "the server does not speak gRPC in the clear: if it has TLS, write SECURE for CLEAR"},
	{"unknown authority", "no authority known here signed the server's certificate: name the file of its authority in VARIABLE_CA"},
	{"certificate is valid for", "the server's certificate is for another name: use a name that it is for"},
	{"doesn't contain any IP SANs", "the server's certificate is for a name and not for an IP address: use the name"},
	{"has expired or is not yet valid", "the server's certificate has expired, or a clock is wrong: who runs the SERVER can renew it"},
	{"certificate required", "the server asks for a client certificate: set VARIABLE_CERT and VARIABLE_KEY"},
	{"no such host", "there is no host of that name: check the address, in VARIABLE or FLAG"},
	{"no such file or directory", "there is no such socket: is the server running?"},
	{"connection refused", "nothing listens there: is the server running? Another address: VARIABLE or FLAG"},
	{"no route to host", "the host cannot be reached: check the address, in VARIABLE or FLAG"},
	{"i/o timeout", "the host does not answer: check the address, in VARIABLE or FLAG"},
}

// webHints are of a cache that can be spoken to in HTTP, too. They come first.
var webHints = []hint{
	{"does not look like a TLS handshake", "the server speaks without TLS: write grpc:// for grpcs://, or http:// for https://"},
	{"HTTP response to HTTPS client", "the server speaks without TLS: write http:// for https://"},
	{"looked like an HTTP/1.1 header", "this is a server's HTTP address: use its gRPC address, or write http:// for grpc://"},
}
