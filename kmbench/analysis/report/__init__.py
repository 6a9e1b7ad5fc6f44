"""The report: one HTML file with everything in it, and its figures as files."""

from kmbench.analysis.report.content import Content, gather
from kmbench.analysis.report.page import report_html, write_figures

__all__ = ["Content", "gather", "report_html", "write_figures"]
