package examples

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/codeserver/worker"
)

// answer is what a client saw of one request: when it began to send it, when the first of the answer was there, and which
// version it was of.
type answer struct {
	kind       string
	from, seen time.Time
	version    int
}

// interval is the time within which a location has switched to a version: from before the deploy was asked for until the
// deployer was told that it is done.
type interval struct {
	version  int
	from, to time.Time
}

// stale returns the answers that are not of a version that was current when the request began, of versions that are numbered
// in the order of their switches. A request begins when the codeserver has it, which is after its client has begun to send it
// and before the client has seen the first of an answer; a switch is at one moment of its interval. So an answer is wrong for
// certain
//
//   - if its version's successor had been switched to before the client began to send,
//   - if the switch to its version was not asked for when the client saw the answer,
//   - if another client, or the same one, had begun its request after this one was seen, and got an earlier version:
//     then no moments of the switches fit both.
func stale(switches []interval, answers []answer) (wrong []string) {
	at := map[int]interval{}
	for _, s := range switches {
		at[s.version] = s
	}
	say := func(a answer, why string) {
		wrong = append(wrong, fmt.Sprintf("%s: version %d: %s", a.kind, a.version, why))
	}
	bySeen := append([]answer(nil), answers...)
	sort.Slice(bySeen, func(i, j int) bool { return bySeen[i].seen.Before(bySeen[j].seen) })
	byFrom := append([]answer(nil), answers...)
	sort.Slice(byFrom, func(i, j int) bool { return byFrom[i].from.Before(byFrom[j].from) })
	next, newest := 0, answer{}
	for _, a := range byFrom {
		own, ok := at[a.version]
		if !ok {
			say(a, "there is none such")
			continue
		}
		if after, ok := at[a.version+1]; ok && after.to.Before(a.from) {
			say(a, fmt.Sprintf("%s after the switch to the next one", a.from.Sub(after.to)))
		}
		if a.seen.Before(own.from) {
			say(a, fmt.Sprintf("%s before its deploy", own.from.Sub(a.seen)))
		}
		for ; next < len(bySeen) && bySeen[next].seen.Before(a.from); next++ {
			if bySeen[next].version > newest.version {
				newest = bySeen[next]
			}
		}
		if newest.version > a.version {
			say(a, fmt.Sprintf("%s had an answer of version %d %s before", newest.kind, newest.version, a.from.Sub(newest.seen)))
		}
	}
	return wrong
}

// TestStale has the check of the soak test find each kind of wrong answer.
func TestStale(t *testing.T) {
	begin := time.Now()
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	switches := []interval{{1, at(-100), at(0)}, {2, at(100), at(200)}, {3, at(300), at(400)}}
	request := func(from, seen, version int) answer { return answer{"x", at(from), at(seen), version} }
	for _, test := range []struct {
		wrong   string
		answers []answer
	}{
		{"", []answer{request(10, 20, 1), request(150, 160, 1), request(155, 165, 2), request(50, 500, 1), request(50, 500, 3), request(160, 201, 1)}},
		{"after the switch to the next one", []answer{request(201, 202, 1)}},
		{"before its deploy", []answer{request(90, 99, 2)}},
		{"had an answer of version 2", []answer{request(120, 130, 2), request(140, 150, 1)}},
		{"there is none such", []answer{request(120, 130, 4)}},
	} {
		wrong := stale(switches, test.answers)
		if test.wrong == "" {
			require.Empty(t, wrong)
			continue
		}
		require.Len(t, wrong, 1)
		require.Contains(t, wrong[0], test.wrong)
	}
}

// leftovers is what a codeserver holds. Memory is for the reader only: it is what Go has not given back yet, too.
type leftovers struct {
	Processes, Ports, Descriptors int
	Files                         int   // of the state directory
	Bytes                         int64 // of what they hold, as listing has it
	MemoryKiB                     int
}

// settled waits until the codeserver holds no more than it held before, or without such a measure until what it holds stays
// the same, and returns that.
func (s *soak) settled(before *leftovers) (now leftovers) {
	var last leftovers
	for same, deadline := 0, time.Now().Add(90*time.Second); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		now = s.leftovers()
		switch {
		case before != nil && now.within(*before):
			return now
		case !now.within(last) || !last.within(now):
			same = 0
		case before == nil && same == 6:
			s.files = s.listing()
			return now
		default:
			same++
		}
		last = now
	}
	if before == nil {
		require.Fail(s.t, "the codeserver does not come to rest", "%+v", now)
	}
	var more []string
	for name, size := range s.listing() {
		if s.files[name] != size {
			more = append(more, fmt.Sprintf("%s %d, %d before", name, size, s.files[name]))
		}
	}
	require.Fail(s.t, "something is left over", "%+v, not %+v\n%s\n%s\n%s", now, *before, strings.Join(s.processes(), "\n"),
		strings.Join(more, "\n"), strings.Join(descriptors(s.server.Process.Pid), "\n"))
	return now
}

// within reports whether nothing is more than it was.
func (l leftovers) within(was leftovers) bool {
	return l.Processes <= was.Processes && l.Ports <= was.Ports && l.Descriptors <= was.Descriptors &&
		l.Files <= was.Files && l.Bytes <= was.Bytes
}

// listing returns the files of the state directory, with what they hold but for logs, for numbers and times, which have more
// or fewer digits, and for what is learned of imports, a minute after a version is ready.
func (s *soak) listing() map[string]int64 {
	state, found := filepath.Join(s.dir, "state"), map[string]int64{}
	_ = filepath.WalkDir(state, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // what goes meanwhile is seen to be gone the next time
		}
		name, _ := filepath.Rel(state, path)
		if strings.HasPrefix(name, "warm/learn-") && os.Getenv("PEXPRESS_SOAK") == "" {
			return nil // stays for a minute, for which only the soak test waits
		}
		found[name] = 0
		counts := name != "state.json" && !strings.HasPrefix(name, "logs/") && !strings.HasPrefix(name, "warm/")
		if info, err := d.Info(); err == nil && counts {
			found[name] = info.Size()
		}
		return nil
	})
	return found
}

func (s *soak) leftovers() (l leftovers) {
	server, all := s.server.Process.Pid, map[int]bool{}
	for _, p := range s.processes() { // those of a version whose zygote is gone have another parent
		pid, _ := strconv.Atoi(strings.Fields(p)[0])
		all[pid] = true
	}
	for _, p := range worker.Descendants(server) {
		all[p.PID] = true
	}
	l.Processes = len(all)
	listening := listeningSockets()
	ports := map[string]bool{}
	for pid := range all {
		for _, target := range descriptors(pid) {
			if listening[target] {
				ports[target] = true
			}
			if pid == server {
				l.Descriptors++
			}
		}
	}
	l.Ports = len(ports)
	for _, size := range s.listing() {
		l.Files++
		l.Bytes += size
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", server))
	for _, line := range strings.Split(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			l.MemoryKiB, _ = strconv.Atoi(strings.Fields(rest)[0])
		}
	}
	return l
}

// descriptors returns what the open descriptors of a process are.
func descriptors(pid int) (targets []string) {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil {
			targets = append(targets, target)
		}
	}
	return targets
}

// listeningSockets returns those of TCP, as descriptors' targets.
func listeningSockets() map[string]bool {
	found := map[string]bool{}
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, _ := os.ReadFile(file)
		for _, line := range strings.Split(string(b), "\n") {
			if f := strings.Fields(line); len(f) > 9 && f[3] == "0A" {
				found["socket:["+f[9]+"]"] = true
			}
		}
	}
	return found
}
