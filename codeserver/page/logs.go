package page

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

const (
	defaultTail = 500
	maxTail     = 5000
	// Lines go together until there are so many bytes of them, or the first has waited so long.
	lineBytes = 32 << 10
	lineTime  = 50 * time.Millisecond
)

// logs sends the last lines of a version's log, and follows it.
func (p *Page) logs(w http.ResponseWriter, r *http.Request) {
	tail := defaultTail
	if text := r.URL.Query().Get("tail"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxTail {
			fail(w, http.StatusBadRequest, "tail has to be 1 to "+strconv.Itoa(maxTail))
			return
		}
		tail = n
	}
	if _, _, err := p.versionsOf(r, r.URL.Query().Get("version")); err != nil {
		failed(w, err)
		return
	}
	select {
	case p.readers <- struct{}{}:
	default:
		fail(w, http.StatusServiceUnavailable, "too many logs are read at a time: close some")
		return
	}
	defer func() { <-p.readers }()
	ctx, cancel := p.whileKnown(r)
	defer cancel()
	out := &lines{out: p.begin(w), fail: cancel}
	req := &codeserverpb.LogsRequest{
		Location: r.PathValue("name"), Version: r.URL.Query().Get("version"), Tail: int32(tail), Follow: true,
	}
	err := p.control.stream(ctx, codeserverpb.CodeServer_Logs_FullMethodName, req, func(m proto.Message) error {
		return out.add(m.(*codeserverpb.LogLine))
	})
	out.end(ctx, err)
}

// lineView is one line of a log.
type lineView struct {
	Time *time.Time `json:"time,omitempty"`
	Text string     `json:"text"`
}

// lines sends log lines several at a time. It holds a bounded number of them: while the browser does not take what it was
// sent, add waits, and so does the reading of the log.
type lines struct {
	out  *events
	fail context.CancelFunc // ends the reading

	mu      sync.Mutex
	waiting []lineView
	bytes   int
	timer   *time.Timer
	ended   bool
}

func (l *lines) add(line *codeserverpb.LogLine) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := lineView{Text: line.GetText()}
	if line.GetTime() != nil {
		t := line.GetTime().AsTime()
		v.Time = &t
	}
	l.waiting = append(l.waiting, v)
	if l.bytes += len(v.Text); l.bytes >= lineBytes {
		return l.flush()
	}
	if l.timer == nil {
		l.timer = time.AfterFunc(lineTime, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.flush() != nil {
				l.fail()
			}
		})
	}
	return nil
}

// flush sends what waits. l.mu is held.
func (l *lines) flush() error {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	if len(l.waiting) == 0 || l.ended {
		return nil
	}
	err := l.out.send("lines", l.waiting)
	l.waiting, l.bytes = nil, 0
	return err
}

// end sends what waits and why nothing more comes.
func (l *lines) end(ctx context.Context, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ok := l.flush() == nil
	l.ended = true // a timer that has fired already must not write to an answer that is over
	if !ok || ctx.Err() != nil {
		return
	}
	says := ""
	if err != nil && !errors.Is(err, context.Canceled) {
		says = status.Convert(err).Message()
	}
	_ = l.out.send("end", map[string]string{"error": says}) // who is gone needs none
}
