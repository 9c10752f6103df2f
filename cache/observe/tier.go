package observe

import (
	"maps"
	"strings"
)

// Tier is what one level of the store holds and has done since the start.
type Tier struct {
	Name         string           `json:"name"` // "disk" or "s3"
	Entries      int64            `json:"entries"`
	Bytes        int64            `json:"bytes"`
	MaxBytes     int64            `json:"max_bytes,omitempty"`
	Hits         int64            `json:"hits"`
	Misses       int64            `json:"misses"`
	BytesRead    int64            `json:"bytes_read"`
	BytesWritten int64            `json:"bytes_written"`
	Evicted      int64            `json:"evicted"`
	Damaged      int64            `json:"damaged"`
	Requests     map[string]int64 `json:"requests,omitempty"`  // to S3, by operation
	Waiting      int64            `json:"waiting,omitempty"`   // entries acknowledged and not in S3 yet
	ViewAge      float64          `json:"view_age,omitempty"`  // seconds since the bucket was looked at
	Condemned    int64            `json:"condemned,omitempty"` // packs that wait for deletion
}

// Prices say what one request costs in dollars, by its operation in capitals.
type Prices map[string]float64

// ListPrices are AWS's list prices of S3 Standard in us-east-1, as published for years and assumed to hold: $0.005 for
// 1,000 requests that write or list, $0.0004 for 1,000 GETs and all others, nothing for DELETE. SWAP is a conditional PUT
// of the manifest, UPLOAD the requests of uploads in parts. Other regions, contracts and services differ: the
// configuration can say so.
var ListPrices = Prices{
	"PUT": 0.005 / 1000, "SWAP": 0.005 / 1000, "UPLOAD": 0.005 / 1000, "LIST": 0.005 / 1000,
	"GET": 0.0004 / 1000, "DELETE": 0,
}

// With returns p with some prices changed. An operation that neither knows costs what a GET costs.
func (p Prices) With(other Prices) Prices {
	sum := maps.Clone(p)
	for op, price := range other {
		sum[strings.ToUpper(op)] = price
	}
	return sum
}

// Dollars returns what requests cost.
func (p Prices) Dollars(requests map[string]int64) float64 {
	sum := 0.0
	for op, n := range requests {
		sum += p.of(op) * float64(n)
	}
	return sum
}

func (p Prices) of(op string) float64 {
	if price, ok := p[strings.ToUpper(op)]; ok {
		return price
	}
	return p["GET"]
}
