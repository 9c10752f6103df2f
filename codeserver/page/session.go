package page

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/auth"
)

// A session has two halves, and a request needs both. The cookie is out of the reach of scripts; but cookies belong to a
// host, whatever the port, so that a location's own web application is sent it too. The key is in the browser's storage of
// this origin, port included, and is sent by the page's script in a header.
const (
	keyHeader    = "X-Pexpress-Key"
	cookieName   = "pexpress-page"
	secureCookie = "__Host-pexpress-page" // which other hosts of the domain cannot set
)

const (
	sessionLife = 12 * time.Hour
	sessionIdle = 2 * time.Hour
	maxSessions = 1000
	// maxOwn is how many one principal can have: their oldest gives way.
	maxOwn = 20
)

var errSessions = errors.New("too many people are signed in: try again later")

// session is of someone who has shown a token, which is looked at again with each request: one that is revoked ends it.
type session struct {
	token, who     string
	key            [sha256.Size]byte // hash of the other half
	made, lastUsed time.Time
}

// sessions are held in memory: a restart signs everyone out.
type sessions struct {
	now func() time.Time
	mu  sync.Mutex
	all map[[sha256.Size]byte]*session // by the hash of their ids
}

func newSessions(now func() time.Time) *sessions {
	return &sessions{now: now, all: map[[sha256.Size]byte]*session{}}
}

func random() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// begin makes a session, and returns its two halves.
func (s *sessions) begin(token, who string) (id, key string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	var oldest [sha256.Size]byte
	own := 0
	for i, o := range s.all {
		if o.over(now) {
			delete(s.all, i)
			continue
		}
		if o.who != who {
			continue
		}
		if own++; own == 1 || o.lastUsed.Before(s.all[oldest].lastUsed) {
			oldest = i
		}
	}
	if own >= maxOwn {
		delete(s.all, oldest)
	}
	if len(s.all) >= maxSessions {
		return "", "", errSessions
	}
	id, key = random(), random()
	s.all[sha256.Sum256([]byte(id))] = &session{
		token: token, who: who, key: sha256.Sum256([]byte(key)), made: now, lastUsed: now,
	}
	return id, key, nil
}

func (o *session) over(now time.Time) bool {
	return now.Sub(o.made) > sessionLife || now.Sub(o.lastUsed) > sessionIdle
}

// find returns the session of two halves, nil if there is none.
func (s *sessions) find(id, key string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	hash, shown := sha256.Sum256([]byte(id)), sha256.Sum256([]byte(key))
	o := s.all[hash]
	if o == nil || !hmac.Equal(o.key[:], shown[:]) {
		return nil
	}
	if o.over(s.now()) {
		delete(s.all, hash)
		return nil
	}
	o.lastUsed = s.now()
	return o
}

func (s *sessions) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, sha256.Sum256([]byte(id)))
}

// sessionOf returns the session of a request, nil if it has none.
func (p *Page) sessionOf(r *http.Request) (s *session, id string) {
	c, err := r.Cookie(p.cookie("").Name)
	if err != nil || len(c.Value) > 100 || len(r.Header.Get(keyHeader)) > 100 {
		return nil, ""
	}
	return p.sessions.find(c.Value, r.Header.Get(keyHeader)), c.Value
}

func (p *Page) cookie(value string) *http.Cookie {
	c := &http.Cookie{
		Name: cookieName, Value: value, Path: "/", HttpOnly: true, Secure: p.opts.TLS, SameSite: http.SameSiteStrictMode,
		MaxAge: int(sessionLife.Seconds()),
	}
	if p.opts.TLS {
		c.Name = secureCookie
	}
	if value == "" {
		c.MaxAge = -1
	}
	return c
}

// keyOf is the key of someone who has no session: one with a certificate, or everyone where nobody is asked. It is shown
// to the page alone, since other origins cannot read what /api/session answers.
func (p *Page) keyOf(who string) string {
	m := hmac.New(sha256.New, p.key)
	m.Write([]byte(who))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// hasKey reports whether a request shows the key that goes with who makes it.
func (p *Page) hasKey(r *http.Request, who string) bool {
	if s, _ := p.sessionOf(r); s != nil {
		return true
	}
	return hmac.Equal([]byte(r.Header.Get(keyHeader)), []byte(p.keyOf(who)))
}

// sessionView is what the page's script knows of who looks at it.
type sessionView struct {
	Host string `json:"host"`
	// Who is the principal; empty where nobody is asked.
	Who string `json:"who"`
	// Key goes with requests from then on.
	Key string `json:"key,omitempty"`
	// SignIn says that a token can be shown, and SignedIn that one was.
	SignIn   bool `json:"sign_in"`
	SignedIn bool `json:"signed_in"`
}

func (p *Page) showSession(w http.ResponseWriter, r *http.Request) {
	who := cache.PrincipalOf(r.Context())
	v := sessionView{Host: p.opts.Name, Who: who, SignIn: p.opts.Authenticator != nil}
	if s, _ := p.sessionOf(r); s != nil {
		v.SignedIn = true
	} else {
		v.Key = p.keyOf(who)
	}
	if who == everyone && p.opts.Authenticator == nil {
		v.Who = ""
	}
	writeJSON(w, http.StatusOK, v)
}

// signIn begins a session for who shows a token.
func (p *Page) signIn(w http.ResponseWriter, r *http.Request) {
	if p.opts.Authenticator == nil {
		fail(w, http.StatusNotFound, "this codeserver asks nobody who they are")
		return
	}
	var req struct {
		Token string `json:"token"`
	}
	if !readJSON(w, r, &req) {
		return
	}
	if req.Token == "" {
		fail(w, http.StatusUnauthorized, "a token is needed: who runs the codeserver can make one with 'codeserver token NAME'")
		return
	}
	who, err := p.opts.Authenticator.Principal(r.Context(), auth.Credentials{Token: req.Token})
	if err != nil {
		p.opts.Log.Warn("a token was refused on the page", "from", r.RemoteAddr)
		refuse(w, err)
		return
	}
	id, key, err := p.sessions.begin(req.Token, who)
	if err != nil {
		fail(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	if _, old := p.sessionOf(r); old != "" {
		p.sessions.end(old)
	}
	http.SetCookie(w, p.cookie(id))
	writeJSON(w, http.StatusOK, sessionView{Host: p.opts.Name, Who: who, Key: key, SignIn: true, SignedIn: true})
}

// signOut ends a session.
func (p *Page) signOut(w http.ResponseWriter, r *http.Request) {
	if _, id := p.sessionOf(r); id != "" {
		p.sessions.end(id)
	}
	http.SetCookie(w, p.cookie(""))
	w.WriteHeader(http.StatusNoContent)
}
