package main

import (
	"context"
	"time"
)

// drain lets requests under way end, once nobody sends new ones.
func (n *node) drain() {
	n.report("STOPPING=1")
	n.log.Info("ending: requests under way are finished", "within", time.Duration(n.c.Drain).String())
	n.health.Shutdown()
	n.web.closing.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(n.c.Drain))
	defer cancel()
	ended := make(chan struct{})
	go func() {
		n.grpc.GracefulStop()
		close(ended)
	}()
	if err := n.http.Shutdown(ctx); err != nil {
		n.log.Warn("HTTP requests were cut off", "error", err.Error())
		n.http.Close()
	}
	select {
	case <-ended:
	case <-ctx.Done():
		n.log.Warn("calls were cut off", "after", time.Duration(n.c.Drain).String())
		n.grpc.Stop()
		<-ended
	}
}

// close ends what is left.
func (n *node) close() error {
	if n.grpc != nil {
		n.grpc.Stop()
		n.http.Close()
		n.service.Close()
	}
	err := n.store.close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if terr := n.traces.Close(ctx); terr != nil {
		n.log.Warn("the last traces were not sent", "error", terr.Error())
	}
	return err
}

func (n *node) report(state string) {
	if err := notify(state); err != nil {
		n.log.Warn("systemd was not told", "error", err.Error())
	}
}

// reloader reads files again.
type reloader func() (changed bool, err error)

// rereadEvery is how often files are looked at that may change.
const rereadEvery = 10 * time.Second

// watch reads files again until ctx ends. What makes no sense changes nothing, and is said once each time.
func (n *node) watch(ctx context.Context, files []reloader) {
	ticker := time.NewTicker(rereadEvery)
	defer ticker.Stop()
	said := make([]string, len(files))
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		for i, reload := range files {
			changed, err := reload()
			switch {
			case err != nil && err.Error() != said[i]:
				n.log.Error("a file cannot be read again; what it said before still holds", "error", err.Error())
				said[i] = err.Error()
			case err == nil && changed:
				n.log.Info("certificates or tokens were read again")
				said[i] = ""
			}
		}
	}
}
