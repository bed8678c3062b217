package bench

import (
	"fmt"
	"html"
	"io"
	"strings"
)

// Measures of a chart, in pixels.
const (
	chartRow   = 26
	chartBar   = 14
	chartHead  = 34
	chartName  = 110 // where bars begin
	chartBars  = 420 // how long the longest is
	chartTotal = 640
)

// Chart draws the verbs beside a bare boot, as SVG: a bar to the median, a line from the least to the 95th percentile,
// and a pale bar to the first command over SSH.
func (r Report) Chart(w io.Writer) error {
	rows := append([]VerbReport{{Verb: "bare boot", Ready: r.Bare, Ratio: 1}}, r.Verbs...)
	most := 0.0
	for _, v := range rows {
		most = max(most, v.Ready.P95, v.SSH.Median)
	}
	x := func(ms float64) float64 { return chartName + chartBars*ms/most }
	var b strings.Builder
	height := chartHead + chartRow*len(rows) + 8
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", chartTotal, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", chartTotal, height)
	fmt.Fprintf(&b, `<text x="8" y="20" font-weight="bold">%s, medians of %d over a bare boot</text>`+"\n", html.EscapeString(r.Image), len(r.Measured.Rounds))
	for i, v := range rows {
		top := chartHead + chartRow*i
		middle := float64(top) + chartBar/2
		bar := func(to float64, color string) {
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", chartName, top, x(to)-chartName, chartBar, color)
		}
		label := fmt.Sprintf("%.2f", v.Ratio)
		if v.SSH.Median > 0 {
			bar(v.SSH.Median, "#c8d8ea")
			label += fmt.Sprintf(", SSH %.2f", v.SSHRatio)
		}
		bar(v.Ready.Median, "#4878a8")
		fmt.Fprintf(&b, `<path d="M%.1f %.1fH%.1f" stroke="#222"/>`+"\n", x(v.Ready.Min), middle, x(v.Ready.P95))
		fmt.Fprintf(&b, `<text x="8" y="%d">%s</text>`+"\n", top+chartBar-3, html.EscapeString(string(v.Verb)))
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s</text>`+"\n", x(max(v.Ready.P95, v.SSH.Median))+6, top+chartBar-3, label)
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}
