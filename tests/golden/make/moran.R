# Golden values of Moran's I and of entropy. Run once: Rscript tests/golden/make/moran.R tests/golden/moran.json
# R 4.2.2, spdep: queen neighbours of a square grid with holes (an island among them), and a hexagonal grid; binary weights.
suppressMessages({library(spdep); library(jsonlite)})
out <- commandArgs(trailingOnly = TRUE)[1]
set.seed(11)
of <- function(xy, near, x) {
  m <- moran.test(x, nb2listw(near, style = "B", zero.policy = TRUE), randomisation = TRUE, zero.policy = TRUE,
                  adjust.n = FALSE)
  p <- x / sum(x)
  list(x = xy[, 1], y = xy[, 2], score = x, pairs = sum(card(near)) / 2, moran = unname(m$estimate[1]),
       entropy = -sum(p * log(p)) / log(length(p)), effective = 1 / sum(p^2))
}
grid <- as.matrix(expand.grid(x = 0:11, y = 0:8))
grid <- grid[!(grid[, 1] %in% 4:5 & grid[, 2] < 7) & runif(nrow(grid)) > 0.1, ]
grid <- rbind(grid, c(20, 20))                                        # an island
square <- exp(grid[, 1] / 6 + rnorm(nrow(grid)))
row <- rep(0:9, each = 10); column <- rep(0:9, 10)
hex <- cbind(round(100 * (column + (row %% 2) / 2)), round(100 * sqrt(3) / 2 * row))
loose <- exp(rnorm(100))
write(toJSON(list(
  square = of(512 * grid, dnearneigh(grid, 0, 1.5), square),
  hexagonal = of(hex, dnearneigh(hex, 0, 105), loose)
), digits = NA, auto_unbox = TRUE), out)
