// Package metrics counts what the daemon does, and writes figures in the text format that Prometheus reads
// (version 0.0.4, "Exposition formats" in its documentation).
//
// Prometheus's own client library would do the same, and more than is needed here: measured beside this daemon it adds
// 3 MB to the binary and 3 MiB to what an idle daemon holds, of which 40 MiB are allowed in all.
package metrics

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ContentType is what a page is served as.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Page is a page of figures that is being written. Its zero value is empty.
type Page struct{ b strings.Builder }

// String returns the page.
func (p *Page) String() string { return p.b.String() }

// Gauge writes a figure that goes up and down, by the values of one label.
func (p *Page) Gauge(name, help, label string, by map[string]float64) {
	p.family(name, help, "gauge")
	for _, value := range slices.Sorted(maps.Keys(by)) {
		p.sample(name, []string{label}, []string{value}, by[value])
	}
}

// Value writes a figure without labels that goes up and down.
func (p *Page) Value(name, help string, v float64) {
	p.family(name, help, "gauge")
	p.sample(name, nil, nil, v)
}

// Total writes a figure without labels that only grows.
func (p *Page) Total(name, help string, v float64) {
	p.family(name, help, "counter")
	p.sample(name, nil, nil, v)
}

// Info writes a figure that is always one and says something by its labels, which are pairs of name and value.
func (p *Page) Info(name, help string, labels ...[2]string) {
	p.family(name, help, "gauge")
	var names, values []string
	for _, l := range labels {
		names, values = append(names, l[0]), append(values, l[1])
	}
	p.sample(name, names, values, 1)
}

func (p *Page) family(name, help, kind string) {
	p.b.WriteString("# HELP " + name + " " + strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(help) + "\n# TYPE " + name + " " + kind + "\n")
}

func (p *Page) sample(name string, labels, values []string, v float64) {
	p.b.WriteString(name)
	for i, label := range labels {
		sep := ","
		if i == 0 {
			sep = "{"
		}
		p.b.WriteString(sep + label + `="` + escape(values[i]) + `"`)
	}
	if len(labels) > 0 {
		p.b.WriteByte('}')
	}
	p.b.WriteString(" " + strconv.FormatFloat(v, 'g', -1, 64) + "\n")
}

// escape makes any text a label's value.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(s, "\uFFFD"))
}

// maxSeries bounds the combinations of labels that one counter keeps. Further ones count as other: nothing that
// somebody else chooses may fill the daemon's memory, or Prometheus's.
const (
	maxSeries = 200
	other     = "other"
)

// Counter counts events by labels. Its methods may be called concurrently.
type Counter struct {
	Name, Help string
	Labels     []string

	mu     sync.Mutex
	series map[string]*float64 // by the labels' values, joined
}

// Add counts one event with these values of the labels.
func (c *Counter) Add(values ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.series == nil {
		c.series = map[string]*float64{}
	}
	*pick(c.series, values)++
}

// Print adds what was counted to a page.
func (c *Counter) Print(p *Page) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.family(c.Name, c.Help, "counter")
	for _, key := range slices.Sorted(maps.Keys(c.series)) {
		p.sample(c.Name, c.Labels, strings.Split(key, separator), *c.series[key])
	}
}

// separator joins values of labels to a key.
const separator = "\x00"

// pick returns what is kept for these values, or for all that there is no room for.
func pick[T any](series map[string]*T, values []string) *T {
	key := strings.Join(values, separator)
	if s := series[key]; s != nil {
		return s
	}
	if len(series) >= maxSeries {
		key = strings.TrimSuffix(strings.Repeat(other+separator, len(values)), separator)
		if s := series[key]; s != nil {
			return s
		}
	}
	s := new(T)
	series[key] = s
	return s
}

// Histogram counts how long things took, by labels. Its methods may be called concurrently.
type Histogram struct {
	Name, Help string
	Labels     []string
	Bounds     []time.Duration // upper ones, ascending

	mu     sync.Mutex
	series map[string]*spread
}

// spread is how many took up to each bound, and all together.
type spread struct {
	upTo  []uint64 // of each bound, those beyond the bound before
	count uint64
	sum   time.Duration
}

// Observe counts one that took so long, with these values of the labels.
func (h *Histogram) Observe(took time.Duration, values ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.series == nil {
		h.series = map[string]*spread{}
	}
	s := pick(h.series, values)
	if s.upTo == nil {
		s.upTo = make([]uint64, len(h.Bounds))
	}
	s.count++
	s.sum += took
	if i, _ := slices.BinarySearch(h.Bounds, took); i < len(s.upTo) {
		s.upTo[i]++
	}
}

// Print adds what was counted to a page.
func (h *Histogram) Print(p *Page) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p.family(h.Name, h.Help, "histogram")
	labels := append(slices.Clone(h.Labels), "le")
	for _, key := range slices.Sorted(maps.Keys(h.series)) {
		s, values := h.series[key], strings.Split(key, separator)
		sum := uint64(0)
		for i, bound := range h.Bounds {
			sum += s.upTo[i]
			p.sample(h.Name+"_bucket", labels, append(slices.Clone(values), strconv.FormatFloat(bound.Seconds(), 'g', -1, 64)), float64(sum))
		}
		p.sample(h.Name+"_bucket", labels, append(slices.Clone(values), "+Inf"), float64(s.count))
		p.sample(h.Name+"_sum", h.Labels, values, s.sum.Seconds())
		p.sample(h.Name+"_count", h.Labels, values, float64(s.count))
	}
}
