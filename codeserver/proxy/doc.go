// Package proxy is the stable address in front of the versions of a location.
//
// A version is a process that listens on a loopback port. Each request (an
// HTTP/1.1 request, an HTTP/2 stream, a gRPC call) goes to the version that is
// current when it begins, and ends on that version, whatever is switched
// meanwhile. Routing is by request, not by connection, so a client's idle
// keep-alive connection pins no version and survives every switch.
//
// A deployment reads:
//
//	next := proxy.NewMeasured("127.0.0.1:4311", stats)
//	old := sw.Point(next)      // from here on, requests begin on next
//	if old != nil {
//		err := old.Drain(ctx)  // the last request on old has ended
//		old.Close()            // or is cut off here
//	}
//
// The listener speaks HTTP/1.1, upgrades such as WebSocket included, and HTTP/2
// without TLS by prior knowledge, which is what gRPC clients speak. A gRPC call
// is forwarded over HTTP/2; everything else over HTTP/1.1, because uvicorn and
// gunicorn speak nothing newer.
package proxy
