package codeserver

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
)

// tree stores a tree of files.
func tree(t *testing.T, cas cache.CAS, files map[string]string) digest.Digest {
	var b merkle.Builder
	for path, content := range files {
		d, err := cache.PutBlob(context.Background(), cas, []byte(content))
		require.NoError(t, err)
		require.NoError(t, b.File(path, d))
	}
	tr, err := b.Build()
	require.NoError(t, err)
	require.NoError(t, tr.Put(context.Background(), cas))
	return tr.Root()
}

// sourceTree stores a source.pex of files.
func sourceTree(t *testing.T, cas cache.CAS, files map[string]string) digest.Digest {
	all := map[string]string{"PEX-INFO": `{"code_hash": "0", "requirements": []}`, "__main__.py": "raise SystemExit('not this')"}
	for p, c := range files {
		all[p] = c
	}
	return tree(t, cas, all)
}

// depsTree stores a deps.pex of wheels, by file name.
func depsTree(t *testing.T, cas cache.CAS, wheels map[string][]byte) digest.Digest {
	files, dist, reqs := map[string]string{}, map[string]string{}, []string{}
	for name, content := range wheels {
		files[".deps/"+name] = string(content)
		dist[name] = digest.FromBytes(content).Hash()
		parts := strings.Split(name, "-")
		reqs = append(reqs, parts[0]+"=="+parts[1])
	}
	info, err := json.Marshal(map[string]any{"distributions": dist, "requirements": reqs, "deps_are_wheel_files": true})
	require.NoError(t, err)
	files["PEX-INFO"] = string(info)
	return tree(t, cas, files)
}

// member is a file of a wheel; record is its line in RECORD if that is not the truth.
type member struct {
	name, content, record string
	mode                  os.FileMode
}

// wheel returns a wheel of members.
func wheel(t *testing.T, project string, members ...member) []byte {
	info := project + "-1.0.dist-info/"
	members = append(
		members,
		member{name: info + "WHEEL", content: "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"},
		member{name: info + "METADATA", content: "Metadata-Version: 2.1\nName: " + project + "\nVersion: 1.0\n"},
	)
	record := ""
	for _, m := range members {
		sum := sha256.Sum256([]byte(m.content))
		if m.record == "" {
			m.record = fmt.Sprintf("%s,sha256=%s,%d", m.name, base64.RawURLEncoding.EncodeToString(sum[:]), len(m.content))
		}
		record += m.record + "\n"
	}
	members = append(members, member{name: info + "RECORD", content: record + info + "RECORD,,\n"})
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, m := range members {
		header := &zip.FileHeader{Name: m.name, Method: zip.Deflate}
		if m.mode == 0 {
			m.mode = 0o644
		}
		header.SetMode(m.mode)
		w, err := z.CreateHeader(header)
		require.NoError(t, err)
		_, err = io.WriteString(w, m.content)
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	return b.Bytes()
}

// webApp answers with its word, and with what it sees of its process.
func webApp(word string) map[string]string {
	return map[string]string{
		"app/word.py":     fmt.Sprintf("WORD = %q\n", word),
		"app/__init__.py": "",
		"app/__main__.py": webMain,
	}
}

const webMain = `import http.server, json, os, subprocess, sys, time
from app.word import WORD
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/crash":
            os._exit(3)
        if self.path == "/slow":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for i in range(40):
                part = WORD.encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.flush()
                time.sleep(0.05)
            self.wfile.write(b"0\r\n\r\n")
            return
        body = {"/": WORD, "/env": json.dumps(dict(os.environ)), "/cwd": os.getcwd(), "/pid": str(os.getpid()),
                "/sys": json.dumps([sys.path, sys.executable, sys.prefix])}.get(self.path)
        if self.path == "/sub":
            body = subprocess.check_output([sys.executable, "-m", "app.word"]).decode() + "sub"
        body = (body or "").encode()
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
print("serving", WORD, flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
`
